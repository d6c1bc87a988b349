"""Headless Chromium, for pages."""

import subprocess
import time
import urllib.request

from helpers.services import call


class Browser:
    """Headless Chromium by the WebDriver protocol."""

    FLAGS = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync",
        "--window-size=600,860",
    )  # fmt: skip

    def __init__(self, folder):
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True
        )
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                port = int(line.split("port")[-1].strip(" .\n"))
                break
        self.url = f"http://127.0.0.1:{port}"
        options = {"args": [*self.FLAGS, f"--user-data-dir={folder}"]}
        self.url += (
            "/session/"
            + self.post(
                "session",
                capabilities={"alwaysMatch": {"goog:chromeOptions": options}},
            )["sessionId"]
        )

    def post(self, what, **body):
        status, answer = call(f"{self.url}/{what}", body)
        assert status == 200, answer
        return answer["value"]

    def get(self, what):
        return call(f"{self.url}/{what}")[1]["value"]

    def run(self, script):
        return self.post("execute/sync", script=script, args=[])

    def wait_for(self, script):
        end = time.time() + 20
        while not (value := self.run(f"return {script}")):
            assert time.time() < end, script
            time.sleep(0.05)
        return value

    def click(self, selector):
        (element,) = self.post(
            "element", using="css selector", value=selector
        ).values()
        self.post(f"element/{element}/click")

    def slide(self, name, value):
        self.run(
            f"const e = document.getElementById('{name}'); e.value = {value};"
            "e.dispatchEvent(new Event('input'));"
        )

    def close(self):
        request = urllib.request.Request(self.url, method="DELETE")
        urllib.request.urlopen(request, timeout=20).close()
        self.driver.terminate()
        self.driver.wait()
        self.driver.stdout.close()
