"""The process in which an answer runs. It has never seen a test: it is asked for calls, one after the other."""

from __future__ import annotations

from typing import Any

from backtrack_mrt.sandbox.values import decoded, encoded, receive, send

NAME = "solution"  # of the answer's module


class Serving:
    """The answer's names, and the objects of its that the tests hold on to."""

    def __init__(self, calls: int, results: int) -> None:
        self.calls, self.results = calls, results
        self.held: list[Any] = []

    def run(self, code: str) -> None:
        """Run the answer, tell its names, then answer calls until there are no more."""
        names: dict[str, Any] = {"__name__": NAME}
        try:
            exec(compile(code, f"<{NAME}>", "exec", dont_inherit=True), names)
        except SyntaxError as error:
            send(self.results, {"unreadable": str(error)})
            return
        except BaseException as error:
            send(self.results, self._failed(error))
            return
        public = {name: value for name, value in list(names.items()) if not name.startswith("__")}
        send(self.results, {"names": {str(name): encoded(value, self._hold) for name, value in public.items()}})
        while True:
            message = receive(self.calls)
            try:
                send(self.results, self._answer(message))
            except EOFError:
                return
            except BaseException as error:
                send(self.results, self._failed(error))

    def _answer(self, message: Any) -> dict[str, Any]:
        """The value asked for, and the arguments of a call as the call has left them: it may change a list in place."""
        what = self.held[message["of"]]
        if message["name"] is not None:
            what = getattr(what, message["name"])
        if "args" not in message:
            return {"value": encoded(what, self._hold)}
        args = decoded(message["args"], self.held.__getitem__)
        value = what(*args, **decoded(message["kwargs"], self.held.__getitem__))
        return {"value": encoded(value, self._hold), "args": encoded(args, self._hold)}

    def _hold(self, value: Any) -> dict[str, str]:
        self.held.append(value)
        return {"handle": str(len(self.held) - 1)}

    def _failed(self, error: BaseException) -> dict[str, str]:
        try:
            said = str(error)[:500]
        except BaseException:
            said = ""
        return {"raised": type(error).__name__, "said": said}
