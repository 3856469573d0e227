"""uvicorn's HTTP protocol, made safe against what is no HTTP."""

from __future__ import annotations

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class SafeProtocol(H11Protocol):
    """Where uvicorn raises at rubbish behind the beginning of an answer, this one hangs up."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, also in the middle of a request that is being answered."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # the answer had begun
            self.transport.close()
