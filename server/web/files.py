"""Files of the client's build, sent in the smallest form that the browser takes.

The build leaves `x.js.br` and `x.js.gz` beside `x.js` (client-demo/vite.compressed.ts); which one
is sent, Accept-Encoding decides (RFC 9110 section 12.5.3). Without a twin, or when only a part is
asked for, the file goes as it is.
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
            if twin.is_file():
                return twin, coding
    return path, ""


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
