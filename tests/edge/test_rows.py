"""Where each way of attacking the edge is tested: connections and handshakes (H), frames (F).

    H1       foreign Origin: 403, counted, named in the log
    H2       Origin null: 403
    H3       origins that look like ours (prefix, suffix, case, port): 403
    H4       no Origin, so no browser: may watch; whatever it does needs a token
    H5       page of somebody else in a viewer's browser, with cookies: no data, no action
    H6       129 headers, one of 17 KiB, 10 MB of them: 431 and closed; 9 KB of cookies: served
    H7       a head that drips byte by byte: closed at the deadline
    H8       connections that say nothing: closed at the deadline, and no more than a share
    H9       version 8, no key, two keys, a body, two lengths: 400
    H10      unknown subprotocols: 400
    H11      one address joins without end: 503 with Retry-After, others come in
    H12      X-Forwarded-For from anybody: believed from trusted proxies only
    H13      impossible show ids: 404, nothing of them in Redis
    H14      too many connections of one user, of one address: refused by name
    H15      process full: 503 before anything is looked up; alive, but not ready
    H16      no descriptors left: serves on, does not spin, lets in again later
    F1       unmasked frame: 1002
    F2       reserved bits and opcodes: 1002
    F3       announced length of 2^63 - 1: 1009 at once
    F4       message at the limit: taken; one byte more: 1009
    F5       deflate bomb: 1002 or 1009, never inflated above the limit
    F6       20,000 empty fragments: 1009
    F7       fragments that drip for ever: 1002 at the deadline, whatever comes between
    F8       flood of pings: 4429, others are answered meanwhile
    F9       text that is not UTF-8: 1007, no traceback
    F10      text on the binary subprotocol, and the reverse: 1003
    F11      no pong: 4409, the user is gone
    F12      torn in every way a thousand times: nothing is left
    autobahn the fuzzing client's 247 cases, and some of its compressed ones

Where a row was tested already, its test stays where it is.
"""

from typing import Final

import pytest

from tests.rows import missing_tests, rows_in

HERE: Final = "tests/edge/"
HANDSHAKES: Final = f"{HERE}test_handshake_rows.py::test_h"
FRAMES: Final = f"{HERE}test_frame_rows.py::test_f"
DOOR: Final = "tests/integration/test_door.py::test_"
WS: Final = "tests/integration/test_ws.py::test_"
INPUT: Final = "tests/integration/test_ws_input.py::test_"
ADMISSION: Final = "tests/unit/test_admission.py::test_"
PARSER: Final = "tests/unit/test_frames.py::test_"
VIEWER: Final = "tests/unit/test_viewer.py::test_"

# The name of a test, or how it begins.
ROWS: Final = {
    "H1": [f"{HANDSHAKES}01_", f"{WS}origin_when_a_page_connects_then_only_ours"],
    "H2": [
        f"{WS}origin_when_a_page_connects_then_only_ours",
        f"{ADMISSION}origin_when_a_page_asks_then_only",
    ],
    "H3": [
        f"{WS}origin_when_a_page_connects_then_only_ours",
        f"{ADMISSION}origin_when_a_page_asks_then_only",
    ],
    "H4": [
        f"{WS}client_when_it_is_anonymous_then_it_may_watch",
        f"{WS}command_when_it_comes_before_hello_then_token_required",
    ],
    "H5": [f"{HERE}test_foreign_page.py::test_h05_"],
    "H6": [
        f"{HANDSHAKES}06_",
        f"{DOOR}request_when_its_head_is_out_of_bounds_then_it_is_refused_at_once",
        f"{DOOR}request_when_a_header_never_ends_then_431",
        f"{DOOR}handshake_when_a_header_is_larger_than_websockets_would_read",
    ],
    "H7": [f"{DOOR}connection_when_bytes_keep_dripping_then_the_deadline_still_stands"],
    "H8": [f"{HANDSHAKES}08_", f"{DOOR}connection_when_the_request_is_not_complete_in_time"],
    "H9": [
        f"{DOOR}handshake_when_it_is_wrong_then_a_client_error",
        f"{DOOR}request_when_its_head_is_out_of_bounds_then_it_is_refused_at_once",
    ],
    "H10": [f"{WS}subprotocol_when_only_unknown_ones_are_offered_then_400"],
    "H11": [f"{HANDSHAKES}11_", f"{DOOR}upgrade_when_handshakes_come_too_fast_then_503"],
    "H12": [
        f"{DOOR}address_when_the_peer_is_no_trusted_proxy_then_forwarded_for_is_ignored",
        f"{ADMISSION}client_address_when_proxies_are_trusted_then_only_they_are_believed",
    ],
    "H13": [f"{HANDSHAKES}13_", f"{WS}show_when_there_is_none_then_404_and_no_room_is_made"],
    "H14": [
        f"{WS}user_when_they_have_too_many_connections_then_the_next_hello_is_refused",
        f"{DOOR}upgrade_when_one_address_has_too_many_then_only_that_one_is_refused",
    ],
    "H15": [f"{HANDSHAKES}15_", f"{DOOR}upgrade_when_the_process_is_full_then_503_with_retry"],
    "H16": [f"{HANDSHAKES}16_"],
    "F1": [f"{INPUT}raw_frame_when_it_breaks_the_rfc_then_the_close_code_says_how"],
    "F2": [f"{INPUT}raw_frame_when_it_breaks_the_rfc_then_the_close_code_says_how"],
    "F3": [
        f"{INPUT}raw_frame_when_it_breaks_the_rfc_then_the_close_code_says_how",
        f"{PARSER}inbox_when_the_rules_are_broken_then_says_the_close_code",
    ],
    "F4": [f"{FRAMES}04_", f"{INPUT}frame_when_it_breaks_the_bounds_then_the_close_code"],
    "F5": [
        f"{FRAMES}05_",
        f"{WS}compression_when_it_is_offered_then_it_is_not_used",
        "tests/integration/test_compression.py::test_bomb_when_compression_was_agreed_then_1009",
        f"{PARSER}inbox_when_it_is_a_bomb_then_never_more_than_the_limit_is_inflated",
    ],
    "F6": [
        f"{INPUT}frame_when_it_breaks_the_bounds_then_the_close_code",
        f"{PARSER}inbox_when_the_rules_are_broken_then_says_the_close_code",
    ],
    "F7": [f"{FRAMES}07_", f"{VIEWER}wheel_when_a_message_drips_for_ever_then_1002"],
    "F8": [f"{FRAMES}08_", f"{VIEWER}reading_when_cheap_frames_come_without_end_then_4429"],
    "F9": [f"{FRAMES}09_", f"{INPUT}frame_when_the_text_is_not_utf8_then_1007"],
    "F10": [
        f"{INPUT}frame_when_it_breaks_the_bounds_then_the_close_code",
        f"{VIEWER}reading_when_rules_are_broken_then_closes_with_the_code",
    ],
    "F11": [f"{FRAMES}11_", f"{VIEWER}wheel_when_no_pong_comes_then_4409"],
    "F12": [
        f"{FRAMES}12_",
        "tests/unit/test_viewer_sockets.py::test_torn_connections_when_frames_are_being_sent",
    ],
    "autobahn": [f"{HERE}test_autobahn.py::test_autobahn_"],
}


@pytest.mark.parametrize("row", ROWS)
def test_row_when_looked_for_then_its_tests_are_there(row: str) -> None:
    assert missing_tests(ROWS[row]) == []


def test_table_when_read_then_it_has_every_row() -> None:
    assert rows_in(__doc__) == list(ROWS)
