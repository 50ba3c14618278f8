"""Trials in a process of their own: one that hangs is ended, one that dies takes nothing with it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pah_opt.errors import SearchError
from pah_opt.registry.default import Chosen
from pah_opt.search.engines import Answer, answer, tell_timings, timings_of

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from pah_opt.recipe import Recipe
    from pah_opt.search.engines import Judging, Timings
    from pah_opt.search.racing import Rivals
    from pah_opt.search.records import Record, State

START_S = 180.0
"""Seconds in which a new process must have loaded the library and its model."""
READY = b"ready"
KILLED = -9
"""Exit status of a process that was ended from outside: by the system when memory runs out, seldom by anyone else."""


class Child:
    """Judges recipes in a child process, within a time limit.

    The process is started at the first trial, kept for the next ones, and started anew after one that hung or died.
    What its latency table learns comes back, and goes to the next process too. It loads the plugins that this process
    chooses (``--no-plugin``, ``PAH_OPT_PLUGINS``).

    Args:
        judge: what judges there; must survive pickling. Or its pickle, where only the child shall unpack it.
        limit_s: seconds that one trial may take, the start of the process not counted.
    """

    def __init__(self, judge: Judging | bytes, limit_s: float) -> None:
        self.limit_s = limit_s
        self._chosen = Chosen.here()
        self._here = judge
        try:
            self._judge = judge if isinstance(judge, bytes) else pickle.dumps(judge)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise SearchError(
                f"a time limit runs trials in another process, and the model or its images cannot be sent there "
                f"({error}); search without a time limit, or give data that can be pickled"
            ) from error
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._was_up = False

    def __call__(self, recipe: Recipe, rivals: Rivals, record: Record) -> Record:
        """Judge a recipe; see :meth:`pah_opt.search.judge.Judge.__call__`.

        Raises:
            SearchError: the very first process does not start; a later one that does not is the trial's failure.
        """
        given = self.answer(recipe, rivals, record, timings_of(self._here))
        tell_timings(self._here, given.timings)
        return given.record

    def answer(self, recipe: Recipe, rivals: Rivals, record: Record, known: Timings) -> Answer:
        """Do the same with the timings that the search knows; return those that it does not."""
        started = time.perf_counter()
        try:
            pipe = self._started_again() if self._was_up else self._started()
        except SearchError as error:
            if not self._was_up:
                raise
            return _ended(record, "failed", str(error), started)
        started = time.perf_counter()
        try:
            pipe.send_bytes(pickle.dumps((recipe, rivals, record, known)))
            if not pipe.poll(self.limit_s):
                self.close()
                return _ended(record, "timed-out", f"took longer than {self.limit_s:g} s and was ended", started)
            judged: Answer = pickle.loads(pipe.recv_bytes())  # noqa: S301  # from the process that was started here
        except (EOFError, OSError):
            code = self._exit_code()
            self.close()
            if code == KILLED:
                return _ended(record, "out-of-memory", "its process was killed, probably for lack of memory", started)
            return _ended(record, "failed", f"its process died (exit status {code})", started)
        except BaseException:  # an interrupt: what runs there must not go on
            self.close()
            raise
        return judged

    def close(self) -> None:
        """End the process."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.kill()
            process.join()

    def _started_again(self) -> Connection:
        """Start, with a second try: a machine short of memory for a moment is no reason to give up."""
        try:
            return self._started()
        except SearchError:
            return self._started()

    def _started(self) -> Connection:
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self.close()
        # Not forked: a copy of a process with threads and a GPU deadlocks.
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, self._chosen), daemon=True)
        self._process.start()
        there.close()
        try:
            self._pipe.send_bytes(self._judge)
            if self._pipe.poll(START_S) and self._pipe.recv_bytes() == READY:
                self._was_up = True
                return self._pipe
        except (EOFError, OSError) as error:
            code = self._exit_code()
            self.close()
            raise SearchError(f"the process for trials died while it started (exit status {code})") from error
        self.close()
        raise SearchError(f"the process for trials did not start within {START_S:g} s; search without a time limit")

    def _exit_code(self) -> int | None:
        if self._process is None:
            return None
        self._process.join(5)
        return self._process.exitcode


def _ended(record: Record, state: State, reason: str, started: float) -> Answer:
    return Answer(replace(record, state=state, reason=reason, seconds=time.perf_counter() - started))


def _serve(pipe: Connection, chosen: Chosen) -> None:
    """Judge what comes through the pipe until it closes, with the plugins that the search chose."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with chosen.used():
        _judge_all(pipe)


def _judge_all(pipe: Connection) -> None:
    judge = pickle.loads(pipe.recv_bytes())  # noqa: S301  # from the process that started this one
    pipe.send_bytes(READY)
    while True:
        try:
            given = pickle.loads(pipe.recv_bytes())  # noqa: S301  # likewise
        except EOFError:
            return
        pipe.send_bytes(pickle.dumps(answer(judge, *given)))


def _end_with_parent() -> None:
    """A trial that hangs must not outlive a search, or a cluster's worker, that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
