"""Environments in processes of their own: simulators use one core each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import traceback
import typing
from multiprocessing import connection

from keras_flows.ops.scalars import SIZE

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterable
    from typing import Any

    from keras_flows.ops.types import Array
    from keras_flows.ops.types import ArrayLike


class EnvPool:
    """`num_envs` environments, shared out over some processes.

    What `policies.evaluate` and `demonstrations` take in the place of
    environments of their own process; an episode is the same in either.

    ```python
    make = functools.partial(robots.make_env, "reach-v3")
    with robots.EnvPool(make, 25) as envs:
        rollout = kf.policies.evaluate(policy, envs, starts)
    ```

    A script that uses it needs `if __name__ == "__main__":` around what it
    runs, as all of multiprocessing does: processes are spawned and import
    what made them.

    Args:
        make: function of no arguments to an environment, that can be pickled.
        num_envs: number of environments.
        processes: number of processes; by default one for each core this
            process may use.

    Raises:
        ValueError: if a number is below 1.
        RuntimeError: later, if an environment raises, with its traceback.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        num_envs: int,
        processes: int | None = None,
    ) -> None:
        if processes is None:
            processes = _cores()
        for argument, value in (
            ("num_envs", num_envs),
            ("processes", processes),
        ):
            SIZE(argument, value)
        if not callable(make):
            raise ValueError(
                "`make` must be a function that makes an environment. "
                f"Received: {type(make).__name__}."
            )
        context = multiprocessing.get_context("spawn")
        processes = min(processes, num_envs)
        # Environment i belongs to process i modulo their number.
        self._num_envs, self._links, self._processes = num_envs, [], []
        for first in range(processes):
            own = len(range(first, num_envs, processes))
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(theirs, make, own), daemon=True
            )
            process.start()
            theirs.close()
            self._links.append(ours)
            self._processes.append(process)

    def __len__(self):
        return self._num_envs

    def _each(self, method, arguments):
        """`method` of some environments, all processes at once.

        Args:
            method: name.
            arguments: {number of the environment: tuple of arguments}.

        Returns:
            {number: result}.
        """
        shares = [{} for _ in self._links]
        for i, given in arguments.items():
            row, process = divmod(i, len(self._links))
            shares[process][row] = given
        asked = [p for p, share in enumerate(shares) if share]
        for p in asked:
            self._send(p, (_call, (method, shares[p])))
        found, failure = {}, None
        for p in asked:
            # All answers are taken, or the next question would get them.
            try:
                answer = self._receive(p)
            except RuntimeError as error:
                failure = failure or error
                continue
            for row, result in answer.items():
                found[row * len(self._links) + p] = result
        if failure is not None:
            raise failure
        return found

    def reset(self, starts: ArrayLike) -> Any:
        """Go to one start state each; returns the list of observations."""
        found = self._each("reset", {i: (s,) for i, s in enumerate(starts)})
        return [found[i] for i in range(len(starts))]

    def step(self, actions: ArrayLike) -> Any:
        """{i: action} to {i: (observation, reward, success)}."""
        return self._each("step", {i: (a,) for i, a in actions.items()})

    def expert_actions(self) -> Array:
        """The experts' actions of all, a list."""
        found = self._each("expert_action", {i: () for i in range(len(self))})
        return [found[i] for i in range(len(self))]

    def imap(self, function: Callable[..., Any], items: Iterable[Any]) -> Any:
        """function(env, item) of each item, in order, as they are ready.

        Each process has its first environment for it, and begins the next
        item when it is done with one.

        Args:
            function: to be pickled.
            items: iterable; may be endless, if the results are not.
        """
        items, busy, done, following = enumerate(items), {}, {}, 0

        def begin(process):
            for number, item in items:
                self._send(process, (_apply, (function, item)))
                busy[self._links[process]] = process, number
                return

        try:
            for process in range(len(self._links)):
                begin(process)
            while busy:
                for link in connection.wait(list(busy)):
                    process, number = busy.pop(link)
                    done[number] = self._receive(process)
                    begin(process)
                while following in done:
                    yield done.pop(following)
                    following += 1
        finally:
            # What was begun and is not wanted, be it an error.
            for process, _ in busy.values():
                with contextlib.suppress(RuntimeError):
                    self._receive(process)

    def _send(self, process, message):
        try:
            self._links[process].send(message)
        except OSError as error:
            raise RuntimeError(self._dead(process)) from error

    def _receive(self, process):
        try:
            failed, result = self._links[process].recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(self._dead(process)) from error
        if failed:
            raise RuntimeError(f"An environment raised:\n{result}")
        return result

    def _dead(self, process):
        code = self._processes[process].exitcode
        return (
            f"A process of environments has ended (exit code {code}). If it "
            "never began: a script needs `if __name__ == '__main__':` around "
            "what it runs."
        )

    def close(self) -> None:
        """End the processes."""
        for link in self._links:
            link.close()
        for process in self._processes:
            process.join()
        self._links, self._processes = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _cores():
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _work(link, make, num_envs):
    """A process: serve its environments until the pool closes."""
    try:
        envs = [make() for _ in range(num_envs)]
        failure = None
    except Exception:  # To be told where something is asked of it.
        failure = traceback.format_exc()
    while True:
        try:
            function, arguments = link.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        try:
            answer = failure is not None, failure
            if failure is None:
                answer = False, function(envs, *arguments)
        except Exception:
            answer = True, traceback.format_exc()
        try:
            link.send(answer)
        except OSError:  # The pool was closed meanwhile.
            return


def _call(envs, method, arguments):
    return {
        row: getattr(envs[row], method)(*given)
        for row, given in arguments.items()
    }


def _apply(envs, function, item):
    return function(envs[0], item)
