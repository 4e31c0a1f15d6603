"""Files of the client's build, sent in the smallest form that the browser takes.

The build leaves `x.js.br` and `x.js.gz` beside `x.js` (client-demo/vite.compressed.ts); which one
is sent, Accept-Encoding decides (RFC 9110 section 12.5.3). Without a twin, or when only a part is
asked for, the file goes as it is; so it does when it was written after its twin, which is of an
earlier build then. Twins have no addresses of their own.
"""

import mimetypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

TWIN_LAG_SECONDS: Final = 60.0  # who installs the files may write them in any order
_SUFFIXES: Final = {"br": ".br", "gzip": ".gz"}  # content coding -> of the file; smaller ones first


def accepted_codings(header: str) -> list[str]:
    """Those of our codings that an Accept-Encoding allows: the best liked first, then the smaller.

    What cannot be read is not accepted.
    """
    weights = dict(_weight(part) for part in header.lower().split(","))
    others = weights.get("*", 0.0)
    liked = {coding: weights.get(coding, others) for coding in _SUFFIXES}
    return sorted((one for one in liked if liked[one] > 0), key=lambda one: -liked[one])


def _weight(part: str) -> tuple[str, float]:
    """`br;q=0.5` -> ("br", 0.5)."""
    coding, _, parameter = part.partition(";")
    name, _, value = parameter.partition("=")
    try:
        weight = float(value) if name.strip() == "q" else 1.0
    except ValueError:
        weight = 0.0
    return coding.strip(), weight


def file_response(path: Path, asked: Headers, headers: Mapping[str, str]) -> FileResponse:
    """`path` or its best twin for a request with the headers `asked`. Raises FileNotFoundError."""
    found, coding = _best_form(path, asked)
    response = FileResponse(
        found,
        headers={**headers, "vary": "accept-encoding"},
        media_type=mimetypes.guess_type(path.name)[0] or "application/octet-stream",
        stat_result=os.stat(found),
    )
    if coding:
        response.headers["content-encoding"] = coding
    return response


def _best_form(path: Path, asked: Headers) -> tuple[Path, str]:
    """The file to send and its content coding, '' as it is."""
    if "range" not in asked:
        for coding in accepted_codings(",".join(asked.getlist("accept-encoding"))):
            twin = path.with_name(path.name + _SUFFIXES[coding])
            if twin.is_file() and _age_between(path, twin) <= TWIN_LAG_SECONDS:
                return twin, coding
    return path, ""


def _age_between(path: Path, twin: Path) -> float:
    """Seconds from the writing of `twin` to that of `path`."""
    return path.stat().st_mtime - twin.stat().st_mtime


class Files(StaticFiles):
    """The files of a folder, under `headers` of ours."""

    def __init__(self, directory: Path, headers: Mapping[str, str]) -> None:
        super().__init__(directory=directory, check_dir=False)
        self._headers = headers

    async def check_config(self) -> None:
        """A client that is not built has no files: 404, until it is."""
        try:
            await super().check_config()
        except RuntimeError:
            raise HTTPException(404) from None

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Without their content coding, twins would be sent as what they are not."""
        if path.endswith(tuple(_SUFFIXES.values())):
            return "", None
        return super().lookup_path(path)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        asked = Headers(scope=scope)
        response = file_response(Path(full_path), asked, self._headers)
        if self.is_not_modified(response.headers, asked):
            return NotModifiedResponse(response.headers)
        return response
