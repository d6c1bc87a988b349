"""Progress bars of long work: Keras's own, everywhere alike."""

import sys
import time

import keras

# Seconds until a bar begins where the output is a file, and between its
# lines: the file keeps them all.
TO_A_FILE = 10.0


def on_screen() -> bool:
    """Whether somebody looks on: in a terminal or a notebook."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return terminal or "ipykernel" in sys.modules


class Bar:
    """A bar of `total` units, or nothing where it is not shown.

    Args:
        total: how many units there are.
        unit: the name of one, such as "batch".
        shown: whether there is a bar at all.
    """

    def __init__(
        self, total: int, unit: str = "step", shown: bool = True
    ) -> None:
        self._bar = None
        self._done = 0
        self._begins = time.time()
        if not shown:
            return
        live = on_screen()
        if not live:
            self._begins += TO_A_FILE
        self._bar = keras.utils.Progbar(
            total,
            unit_name=unit,
            interval=0.05 if live else TO_A_FILE,
            # As they are, not averaged over the run.
            stateless_metrics=(),
        )

    def advance(self, count: int = 1, **values: float) -> None:
        """So many units more are done; `values` stand beside the bar."""
        self._done += count
        if self._bar is not None and time.time() >= self._begins:
            self._bar.update(self._done, list(values.items()))
