"""Plays a stranger: every block and command of the first pages, as printed.

    KERAS_BACKEND=jax python tools/newcomer.py --out=newcomer

A line for each step, with its seconds: ok, failed, or left out and why. --out
is a folder, in which the steps run; newcomer.json in it has all of them. The
Python blocks of a page share a namespace, shell blocks run where they are
written, and a service that one starts is ended with its page.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import time
import traceback

import pages

FIRST = ["docs/first_hour.md", "docs/own_robot.md"]
SERVICE = "keras_flows.serving"
# Seconds that a service may take to say that it is ready.
PATIENCE = 300


def python_step(block, scope, path):
    """Run a block of Python; what it printed."""
    # Lines of a traceback are those of the page.
    code = compile("\n" * (block.line - 1) + block.source, str(path), "exec")
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(code, scope)
    return told.getvalue()


def shell_step(block, running):
    """Run a command; its output, or of a service its first line."""
    command = block.source.replace("python ", f"{sys.executable} ")
    if SERVICE not in command:
        done = subprocess.run(
            ["bash", "-ec", command], capture_output=True, text=True
        )
        if done.returncode or not done.stdout:
            raise RuntimeError(
                f"returned {done.returncode}: {done.stderr[-300:]}"
            )
        return done.stdout
    log = open(f"service_{len(running)}.log", "w+")
    service = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    running.append(service)
    for line in service.stdout:
        if line.startswith("Ready: "):
            return line
    log.seek(0)
    raise RuntimeError(f"the service ended: {log.read()[-300:]}")


def steps_of(path):
    """(heading, block) of what a page has to run, or says it does not."""
    for block in pages.blocks(path.read_text()):
        if block.language in pages.PYTHON + pages.SHELL:
            yield block


def play(path):
    """The steps of a page, as records."""
    scope, running = {"__name__": "__main__"}, []
    try:
        for block in steps_of(path):
            record = {
                "page": path.name,
                "line": block.line,
                "step": block.heading,
                "kind": "python" if block.language in pages.PYTHON else "shell",
            }
            if block.reason:
                yield {**record, "outcome": f"left out: {block.reason}"}
                continue
            start = time.perf_counter()
            try:
                if block.python:
                    told = python_step(block, scope, path)
                else:
                    told = shell_step(block, running)
                outcome = "ok"
            except Exception as error:
                told, outcome = traceback.format_exc(), f"failed: {error}"
            seconds = round(time.perf_counter() - start, 1)
            yield {
                **record, "outcome": outcome, "seconds": seconds,
                "output": told[-100_000:],
            }  # fmt: skip
            if outcome != "ok":
                return
    finally:
        for service in running:
            service.terminate()
            service.wait(PATIENCE)
            service.stdout.close()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", default="newcomer", help="folder to work in")
    parser.add_argument(
        "--pages", default=",".join(FIRST), help="with commas, in their order"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights")
    flags = parser.parse_args()
    out = pathlib.Path(flags.out)
    if out.exists() and any(out.iterdir()):
        sys.exit(f"--out must be a new or an empty folder. Received: {out}.")
    out.mkdir(parents=True, exist_ok=True)
    chosen = [(pages.ROOT / name).resolve() for name in flags.pages.split(",")]
    os.chdir(out)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(pages.ROOT), os.environ.get("PYTHONPATH", "")]
    )
    sys.path.insert(0, str(pages.ROOT))
    # A refusal by HTTP is a failure of curl.
    pathlib.Path(".curlrc").write_text("fail\nretry = 0\n")
    os.environ["CURL_HOME"] = os.getcwd()
    import keras

    keras.utils.set_random_seed(flags.seed)
    records = []
    for path in chosen:
        for record in play(path):
            records.append(record)
            seconds = record.get("seconds", "")
            print(
                f"{seconds:>7}  {record['page']}:{record['line']:<4} "
                f"{record['step']}: {record['outcome']}",
                flush=True,
            )
    text = json.dumps(
        {"backend": keras.backend.backend(), "steps": records}, indent=2
    )
    pathlib.Path("newcomer.json").write_text(text + "\n")
    failed = [r for r in records if r["outcome"].startswith("failed")]
    total = sum(r.get("seconds", 0) for r in records)
    print(f"{total:7.1f}  {len(records)} steps, {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
