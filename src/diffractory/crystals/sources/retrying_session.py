"""An HTTP session that waits and asks again; imported only with the clients that use it."""

from __future__ import annotations

from typing import Any, ClassVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry


class PatientRetry(Retry):
    """Retries with growing pauses, and no pause longer than a person would wait."""

    longest_pause: ClassVar[float] = 60.0

    def get_retry_after(self, response: Any) -> float | None:
        """Return the pause that the server asks for, in seconds, cut to the longest one."""
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, self.longest_pause)


class RetryingSession(requests.Session):
    """Asks again after throttling, errors of the server and lost connections, then gives up."""

    attempts: ClassVar[int] = 5
    #: Seconds; the pauses are 0, 2, 4, 8 … times this.
    pause: ClassVar[float] = 1.0

    def __init__(self) -> None:
        super().__init__()
        retries = PatientRetry(
            total=self.attempts,
            backoff_factor=self.pause,
            backoff_max=PatientRetry.longest_pause,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=("GET",),
        )
        for scheme in ("http://", "https://"):
            self.mount(scheme, HTTPAdapter(max_retries=retries))
