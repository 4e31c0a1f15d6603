"""The benchmarks' own tools: frames as a client makes and reads them, percentiles, medians."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from loadtest import report, wire


def parsed_by_websockets(data: bytes, *, mask: bool) -> Frame:
    """The one frame in `data`, by the reference implementation."""
    reader = StreamReader()
    reader.feed_data(data)
    steps = Frame.parse(reader.read_exact, mask=mask)
    with pytest.raises(StopIteration) as finished:
        next(steps)
    return finished.value.value


@given(st.sampled_from([0, 1, 125, 126, 65_535, 65_536]), st.binary(max_size=8))
def test_client_frame_is_read_back_by_websockets(size: int, start: bytes) -> None:
    payload = start.ljust(size, b"x")
    frame = parsed_by_websockets(wire.client_frame(payload), mask=True)
    assert (frame.opcode, frame.data, frame.fin) == (Opcode.BINARY, payload, True)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_payload_span_when_a_byte_is_missing_then_none(size: int) -> None:
    frame = wire.server_frame(b"x" * size)
    assert wire.payload_span(b"??" + frame, 2) == (2 + len(frame) - size, 2 + len(frame))
    assert all(wire.payload_span(frame[:cut], 0) is None for cut in range(min(len(frame), 12)))
    assert wire.payload_span(frame[:-1], 0) is None


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [([], 0.5, 0), ([7], 0.99, 7), (range(1, 101), 0.99, 99), (range(1, 101), 1.0, 100)],
)
def test_percentile_is_the_nearest_rank(values: list[float], share: float, found: float) -> None:
    assert report.percentile(list(values), share) == found


def test_medians_when_a_run_lacks_a_figure_then_the_others_count() -> None:
    assert report.medians([{"a": 1.0, "b": 5.0}, {"a": 3.0}, {"a": 2.0}]) == {"a": 2.0, "b": 5.0}
