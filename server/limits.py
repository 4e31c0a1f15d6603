"""Every fixed bound, with its unit, and the relations between them.

A bound an operator may change is a setting (server/config.py); these are part of the protocol or
of the design. What happens at each bound (refuse, merge, drop, close) is said beside it.
"""

from typing import Final

# --- Handshake and connection ---------------------------------------------------------------
HEADER_BYTES_MAX: Final = 16 * 1024  # request head; above it 431 and close
HEADER_COUNT_MAX: Final = 100  # above it 431; below websockets' own 128
HEADER_SECONDS: Final = 8.0  # a request head must be complete by then, else 408 and close
TLS_HANDSHAKE_SECONDS: Final = 10.0  # where we do TLS ourselves; then the connection is closed
EARLY_BYTES_MAX: Final = 4 * 1024  # bytes a client may send before the hand-over; above it 1009
CLOSE_SECONDS: Final = 5.0  # from our close frame to abort()
STALL_SECONDS: Final = 60.0  # an HTTP answer that is not read for so long is cut off
URL_BYTES_MAX: Final = 2 * 1024
OFFERS_CHARS_MAX: Final = 512  # extensions that a client offers; if there are more, none is taken

# --- Frames from viewers ---------------------------------------------------------------------
COMMAND_BYTES_MAX: Final = 4 * 1024  # one command, also when fragmented; above it close 1009
FRAGMENTS_MAX: Final = 16  # frames of one message; above it close 1009
STRIKES_MAX: Final = 10  # malformed commands on one connection before close 4400
COMMANDS_IN_FLIGHT_MAX: Final = 32  # unanswered commands of one viewer; above it reading pauses
MESSAGES_PER_TURN_MAX: Final = 64  # messages of one viewer in one loop turn; the rest wait
FRAMES_PER_SECOND_MAX: Final = 200  # commands, pings and pongs of one viewer; above it 4429
WRITE_BUFFER_BYTES_MAX: Final = 64 * 1024  # own replies waiting for a viewer; above it close 4408

# --- Commands --------------------------------------------------------------------------------
REF_MAX: Final = 2**31 - 1
TOKEN_CHARS_MAX: Final = 2048
CHAT_CHARS_MAX: Final = 120  # after NFKC; above it refused text_too_long
CHAT_COMBINING_MAX: Final = 3  # combining marks on one base character; more are stripped
LIKE_TAPS_MAX: Final = 100  # taps in one like command
CLAIM_QUANTITY_MAX: Final = 99  # units in one claim, before the sale's own per-buyer limit
ATTEMPT_MAX: Final = 1_000
RECEIPT_CHARS_MAX: Final = 64
USER_ID_CHARS_MAX: Final = 64
NAME_CHARS_MAX: Final = 24
SHOW_ID_PATTERN: Final = r"^[a-z0-9]{4,32}$"
ORIGIN_PATTERN: Final = r"https?://[A-Za-z0-9._-]{1,253}(?::[0-9]{1,5})?"  # of video, for the CSP

# --- Room and tick ---------------------------------------------------------------------------
PHASE_VIEWERS_MAX: Final = 512  # viewers written in one loop turn, 4 to 5 ms
PHASE_MS_MAX: Final = 8.0  # and for how long
TICK_LATE_SECONDS: Final = 0.05  # a frame that leaves so long after its instant counts as late
LAG_SECONDS_MAX: Final = 2.0  # a pong later than this: catch-ups at 1 Hz instead of ticks
SLOW_SECONDS_MAX: Final = 10.0  # a viewer lagging or not reading for longer: close 4408
MESSAGE_SECONDS_MAX: Final = 10.0  # from the first byte of a split message to its last, else 1002
HISTORY_EVENTS_MAX: Final = 512  # L2 events kept in a show's stream for resume
RESUME_EVENTS_MAX: Final = 300  # a longer gap is answered with recovered: false
LINE_ID_CHARS_MAX: Final = 64  # id of a danmaku line that a moderator deletes
RECENT_CHAT_MAX: Final = 50  # chat lines in the snapshot
CHAT_LINES_PER_TICK_MAX: Final = 6  # danmaku shown per tick; the rest are folded into a count
CHAT_PUBLISH_PER_TICK_MAX: Final = 20  # danmaku one hub sends to Redis per tick, rest folded
PRESENCE_PORTION_MAX: Final = 500  # users in one report of a hub, the rest follows in others
TICK_MS_MIN: Final = 20
TICK_MS_MAX: Final = 1_000

# --- Claims ----------------------------------------------------------------------------------
CLAIM_BATCH_MAX: Final = 512  # claims in one script call (Lua's unpack has ~8,000 stack slots)
CLAIM_QUEUE_MAX: Final = 20_000  # claims waiting in one hub for one show; above it busy
REFUSALS_KEPT_MAX: Final = 50_000  # refused repeats a show remembers (~200 B each); the oldest go
SOLD_OUT_CACHE_MS: Final = 200  # how long a hub may answer sold_out by itself
HOLD_LOOKUP_AFTER_MS: Final = 2_000  # a hold unconfirmed for longer is looked up
HOLD_LOOKUP_EVERY_MS: Final = 1_000
HOLD_LOOKUP_BATCH_MAX: Final = 1_000
REPLICA_ACK_MS: Final = 1_000  # durability strict: a replica has a batch by then, else unknown
REPLICAS_ASKED_EVERY_MS: Final = 1_000  # how soon a replica that came or went is noticed

# --- Order worker ----------------------------------------------------------------------------
WORKER_BATCH_CLAIMS_MAX: Final = 4_096  # claims merged into one transaction
WORKER_LEASE_MS: Final = 3_000  # a show's consumer; taken over when it lapses
GIVE_BATCH_MAX: Final = 500
SHOW_KEPT_DAYS: Final = 7  # after its end a show is given back to a Redis that lost it
AUDIT_LATE_S: Final = 60  # committed work that nobody has done by then is a problem
REDO_CLAIMS_MAX: Final = 100_000  # unsettled claims of one show that a hub can prove
REBUILD_WAIT_MS: Final = 2_000  # for hubs to present holds; later ones come by their receipts
REBUILD_GRACE_MS: Final = 1_000  # of it for hubs that lost Redis too, and do not listen yet
FORGIVEN_RETURNS_MAX: Final = 3  # unpaid returns of a buyer per pool; later ones stay counted

# --- Webhooks to merchants ---------------------------------------------------------------------
WEBHOOKS_PER_SHOW_MAX: Final = 10  # endpoints; above it refused conflict
WEBHOOK_SECONDS: Final = 10.0  # one attempt, from looking the name up to the answer's head
WEBHOOKS_IN_HAND_MAX: Final = 256  # attempts under way in one worker; the others wait
WEBHOOKS_PER_ENDPOINT_MAX: Final = 16  # of these to one endpoint; 1 to one that does not answer
WEBHOOK_LOG_DAYS: Final = 30  # messages and their deliveries are deleted after that

# --- Host input ------------------------------------------------------------------------------
TITLE_CHARS_MAX: Final = 80
URL_CHARS_MAX: Final = 1_024
COMMENTARY_CHARS_MAX: Final = 500
PRODUCTS_MAX: Final = 100  # products in one show's run-list
SKUS_PER_PRODUCT_MAX: Final = 50
SKUS_PER_SHOW_MAX: Final = 300  # every welcome carries the whole run-list
SALES_PER_SHOW_MAX: Final = 200  # and the terms and stock of every sale that was started
PRICE_MINOR_MAX: Final = 10_000_000_00
UNITS_MAX: Final = 1_000_000  # units of one sale, and of one restock
COUNTDOWN_S_MAX: Final = 300
SALE_SECONDS_MIN: Final = 10
SALE_SECONDS_MAX: Final = 20 * 60
SALE_AHEAD_S_MAX: Final = 30 * 24 * 3600  # how far ahead a start may be scheduled
CUES_MAX: Final = 20  # lines that a host means to say of one product
SLOW_MODE_S_MAX: Final = 300
MUTE_SECONDS_MAX: Final = 7 * 24 * 3600
WORDS_MAX: Final = 2_000
WORD_CHARS_MAX: Final = 40
BODY_BYTES_MAX: Final = 64 * 1024  # HTTP request body
# That of a full word list: six bytes a character (\uXXXX), quotes, a comma and a blank each.
POLICY_BYTES_MAX: Final = WORDS_MAX * (WORD_CHARS_MAX * 6 + 4) + 1024

# --- Numbers of a show -------------------------------------------------------------------------
SAMPLE_S: Final = 5
COUNTS_KEPT_S: Final = 7 * 24 * 3600  # hubs' counts of lines and claims after a show's end
SAMPLES_KEPT_DAYS: Final = 30  # of a show that is on; one that has ended keeps what it has
SERIES_SAMPLES_MAX: Final = 720  # in one answer; a longer time is told in longer steps
PINS_LISTED: Final = 50  # the newest of a show

# --- Rehearsals ------------------------------------------------------------------------------
REHEARSAL_BUYERS_MIN: Final = 10
REHEARSAL_BUYERS_MAX: Final = 2_000
REHEARSAL_WATCHERS_MAX: Final = 2_000
REHEARSAL_BOTS_MAX: Final = 50
REHEARSAL_LIVE_MAX: Final = 500  # buyers, and watchers, while the real show is on
REHEARSAL_SECONDS_MIN: Final = 15
REHEARSAL_SECONDS_MAX: Final = 60
REHEARSAL_SILENT_S: Final = 15.0  # a rehearsal whose process has said nothing for so long failed
REHEARSALS_LISTED: Final = 20  # the newest of a show; of older ones no report is kept
REHEARSAL_REPORT_BYTES_MAX: Final = 4 * 1024 * 1024  # of a report's page

# A whole worst-case command must fit: a token is the longest field, chat may be 4 bytes a char.
assert TOKEN_CHARS_MAX + 256 < COMMAND_BYTES_MAX
assert CHAT_CHARS_MAX * 4 + 256 < COMMAND_BYTES_MAX
assert FRAMES_PER_SECOND_MAX < 0xFF  # a viewer counts them in one byte
assert RESUME_EVENTS_MAX < HISTORY_EVENTS_MAX
assert CLAIM_BATCH_MAX <= WORKER_BATCH_CLAIMS_MAX
# What waits in two frozen hubs cannot be forgotten by the buyers who come again through a third.
assert REFUSALS_KEPT_MAX > 2 * CLAIM_QUEUE_MAX
assert CHAT_LINES_PER_TICK_MAX <= CHAT_PUBLISH_PER_TICK_MAX
