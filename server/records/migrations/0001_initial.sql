-- Shows, products, sales, orders and the books that prove every unit.
-- Takes reach these tables after Redis accepted them; gives are committed here first.

CREATE TABLE shows (
    show_id          text PRIMARY KEY CHECK (show_id ~ '^[a-z0-9]{4,32}$'),
    host_id          text NOT NULL,
    title            text NOT NULL,
    cover_url        text NOT NULL DEFAULT '',
    playback_url     text NOT NULL DEFAULT '',
    starts_at        timestamptz,
    status           text NOT NULL DEFAULT 'scheduled'
                     CHECK (status IN ('scheduled', 'live', 'paused', 'ended')),
    pinned_product   bigint,
    slow_mode_s      integer NOT NULL DEFAULT 0 CHECK (slow_mode_s >= 0),
    refused_words    text[] NOT NULL DEFAULT '{}',
    -- Host acts raise `revision`; the projector brings Redis up to it and then raises
    -- `applied_revision`. A difference is work left over by a crash.
    revision         bigint NOT NULL DEFAULT 1,
    applied_revision bigint NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL DEFAULT now(),
    started_at       timestamptz,
    ended_at         timestamptz
);
CREATE INDEX shows_by_host ON shows (host_id, created_at DESC);
CREATE INDEX shows_not_over ON shows (started_at) WHERE status <> 'ended';
CREATE INDEX shows_by_end ON shows (ended_at);
CREATE INDEX shows_to_project ON shows (show_id) WHERE revision > applied_revision;

-- Apart from `shows`, because every order transaction reads it FOR SHARE and host edits must not
-- wait for them.
CREATE TABLE stock_epochs (
    show_id   text PRIMARY KEY REFERENCES shows,
    epoch     integer NOT NULL DEFAULT 1 CHECK (epoch >= 1),
    -- Set when Redis was seen to contradict the books: the gate stays closed and the order worker
    -- stores nothing more until the stock has been reconciled into the next epoch.
    halted_at timestamptz,
    halted_by text NOT NULL DEFAULT ''
);

CREATE TABLE products (
    product_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    show_id    text NOT NULL REFERENCES shows,
    title      text NOT NULL,
    image_url  text NOT NULL DEFAULT '',
    position   integer NOT NULL,
    listed     boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX products_by_show ON products (show_id, position);

CREATE TABLE skus (
    sku_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id bigint NOT NULL REFERENCES products,
    show_id    text NOT NULL REFERENCES shows,
    title      text NOT NULL,
    price      bigint NOT NULL CHECK (price >= 0),
    currency   text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    inventory  integer NOT NULL CHECK (inventory >= 0),
    allotted   integer NOT NULL DEFAULT 0,
    -- Two sales of one sku can never share units.
    CONSTRAINT skus_allotted_within_inventory CHECK (allotted BETWEEN 0 AND inventory)
);
CREATE INDEX skus_by_show ON skus (show_id, product_id);

-- What may be claimed atomically. A flash sale is one kind of pool.
CREATE TABLE pools (
    pool_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    show_id         text NOT NULL REFERENCES shows,
    sku_id          bigint NOT NULL REFERENCES skus,
    kind            text NOT NULL DEFAULT 'flash_sale' CHECK (kind IN ('flash_sale')),
    limit_per_buyer integer NOT NULL CHECK (limit_per_buyer >= 1),
    initial         integer NOT NULL CHECK (initial >= 0),
    restocked       integer NOT NULL DEFAULT 0 CHECK (restocked >= 0),
    lowered         integer NOT NULL DEFAULT 0 CHECK (lowered >= 0),
    reserved        integer NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    sold            integer NOT NULL DEFAULT 0 CHECK (sold >= 0),
    dead            integer NOT NULL DEFAULT 0 CHECK (dead >= 0),
    -- Watermark of the gapless (epoch, seq) of takes: all of them up to here are in the books.
    epoch           integer NOT NULL DEFAULT 1,
    taken_seq       bigint NOT NULL DEFAULT 0,
    -- Raised by every change of the counters; Redis keeps the newest it was told.
    version         bigint NOT NULL DEFAULT 0,
    -- The guard: the record cannot oversell even if Redis lies.
    CONSTRAINT pools_never_oversold
        CHECK (reserved + sold + dead <= initial + restocked - lowered)
);
CREATE INDEX pools_by_show ON pools (show_id);

-- Here and in `orders` pool_id has no foreign key: whoever writes holds the pool's row locked, pools
-- are never deleted, and the checks would cost a third of the order worker's time.
CREATE TABLE pool_buyers (
    pool_id bigint NOT NULL,
    buyer   text NOT NULL,
    units   integer NOT NULL CHECK (units >= 0),
    PRIMARY KEY (pool_id, buyer)
);

CREATE TABLE sales (
    sale_id          bigint PRIMARY KEY REFERENCES pools,
    show_id          text NOT NULL REFERENCES shows,
    price            bigint NOT NULL CHECK (price >= 0),
    price_version    integer NOT NULL DEFAULT 1 CHECK (price_version >= 1),
    countdown_s      integer NOT NULL CHECK (countdown_s BETWEEN 0 AND 300),
    duration_s       integer NOT NULL CHECK (duration_s BETWEEN 10 AND 1200),
    pay_within_s     integer NOT NULL DEFAULT 0 CHECK (pay_within_s >= 0),
    -- draft: not started; scheduled: starts by itself at opens_at; open: window set;
    -- closing: the host or the window's end stopped it, unsold units not yet back; closed.
    status           text NOT NULL DEFAULT 'draft'
                     CHECK (status IN ('draft', 'scheduled', 'open', 'closing', 'closed')),
    opens_at_ms      bigint NOT NULL DEFAULT 0,
    closes_at_ms     bigint NOT NULL DEFAULT 0,
    revision         bigint NOT NULL DEFAULT 1,
    applied_revision bigint NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL DEFAULT now(),
    CHECK (status IN ('draft') OR closes_at_ms > opens_at_ms)
);
CREATE INDEX sales_by_show ON sales (show_id, sale_id);
CREATE INDEX sales_to_project ON sales (sale_id) WHERE revision > applied_revision;
CREATE INDEX sales_unfinished ON sales (closes_at_ms) WHERE status <> 'closed';

CREATE TABLE sale_prices (
    sale_id       bigint NOT NULL REFERENCES sales,
    price_version integer NOT NULL,
    price         bigint NOT NULL,
    since         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sale_id, price_version)
);

CREATE TABLE orders (
    order_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    show_id       text NOT NULL,
    pool_id       bigint NOT NULL,
    buyer         text NOT NULL,
    claim_id      uuid NOT NULL,
    quantity      integer NOT NULL CHECK (quantity > 0),
    price         bigint NOT NULL CHECK (price >= 0),
    price_version integer NOT NULL,
    epoch         integer NOT NULL,
    seq           bigint NOT NULL,
    status        text NOT NULL DEFAULT 'confirmed' CHECK (status IN
                  ('confirmed', 'paid', 'fulfilled', 'expired', 'cancelled', 'refunded')),
    confirmed_at  timestamptz NOT NULL DEFAULT now(),
    pay_by        timestamptz,
    CONSTRAINT orders_one_per_claim UNIQUE (show_id, buyer, claim_id),
    CONSTRAINT orders_one_per_seq UNIQUE (pool_id, epoch, seq)
);
CREATE INDEX orders_by_show ON orders (show_id, order_id);
CREATE INDEX orders_to_expire ON orders (pay_by) WHERE status = 'confirmed' AND pay_by IS NOT NULL;

-- Append-only. One row for the takes of a pool in one transaction, one row for every give.
CREATE TABLE stock_ledger (
    entry_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pool_id   bigint NOT NULL REFERENCES pools,
    reason    text NOT NULL CHECK (reason IN ('allotted', 'taken', 'lowered', 'restocked',
              'expired', 'cancelled', 'refunded', 'released_by_incident', 'dead', 'redriven')),
    units     integer NOT NULL,
    epoch     integer,
    seq_first bigint,
    seq_last  bigint,
    give_id   text UNIQUE,
    at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX stock_ledger_by_pool ON stock_ledger (pool_id, entry_id);

-- Units on their way back to Redis: committed here first, then applied by an idempotent script.
CREATE TABLE gives (
    give_id    text PRIMARY KEY,
    show_id    text NOT NULL,
    pool_id    bigint NOT NULL REFERENCES pools,
    units      integer NOT NULL CHECK (units > 0),
    buyer      text,
    claim_id   uuid,
    reason     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    applied_at timestamptz
);
CREATE INDEX gives_to_apply ON gives (show_id, created_at) WHERE applied_at IS NULL;

-- Takes by the host: units lowered, or left when a sale closed (`closing`, then 0 is possible).
-- They travel the same gapless sequence as claims, so a crash cannot lose them.
CREATE TABLE lowerings (
    pool_id bigint NOT NULL REFERENCES pools,
    epoch   integer NOT NULL,
    seq     bigint NOT NULL,
    units   integer NOT NULL CHECK (units >= 0),
    closing boolean NOT NULL,
    act_id  uuid NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pool_id, epoch, seq)
);

-- Takes that Redis accepted and the guard refused, and why: no_room (Redis had more units than the
-- pool) or over_limit (Redis forgot the buyer's units; a give returns these). The buyer is told.
-- A lowering cut short has buyer '' and its act's id.
CREATE TABLE incidents (
    show_id  text NOT NULL,
    pool_id  bigint NOT NULL REFERENCES pools,
    buyer    text NOT NULL,
    claim_id uuid NOT NULL,
    epoch    integer NOT NULL,
    seq      bigint NOT NULL,
    quantity integer NOT NULL,
    reason   text NOT NULL CHECK (reason IN ('no_room', 'over_limit')),
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pool_id, epoch, seq)
);
CREATE INDEX incidents_by_claim ON incidents (show_id, buyer, claim_id);

-- Takes the worker cannot store for a fault in their data; their units stay counted as dead in
-- their pool, if there is such a pool. An entry of the order stream that cannot be read at all has
-- pool 0, seq 0 and its entry id.
CREATE TABLE dead_letters (
    dead_letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    show_id        text NOT NULL,
    pool_id        bigint NOT NULL,
    epoch          integer NOT NULL,
    seq            bigint NOT NULL,
    entry_id       text NOT NULL DEFAULT '',
    units          integer NOT NULL CHECK (units >= 0),  -- counted as dead
    payload        bytea NOT NULL,  -- the take, or the entry, in msgpack
    error          text NOT NULL,
    status         text NOT NULL DEFAULT 'parked'
                   CHECK (status IN ('parked', 'redriven', 'given_back')),
    at             timestamptz NOT NULL DEFAULT now(),
    UNIQUE (show_id, pool_id, epoch, seq, entry_id)
);

CREATE TABLE payments (
    payment_id  uuid PRIMARY KEY,
    order_id    bigint NOT NULL REFERENCES orders,
    provider    text NOT NULL,
    external_id text NOT NULL,
    amount      bigint NOT NULL CHECK (amount >= 0),
    currency    text NOT NULL,
    status      text NOT NULL CHECK (status IN
                ('created', 'captured', 'retake_pending', 'refund_requested', 'refunded', 'failed')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (provider, external_id)
);

CREATE TABLE outbox (
    message_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    show_id      text NOT NULL,
    topic        text NOT NULL,
    payload      jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz
);
CREATE INDEX outbox_to_deliver ON outbox (message_id) WHERE delivered_at IS NULL;

CREATE TABLE moderations (
    show_id    text NOT NULL REFERENCES shows,
    user_id    text NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('mute', 'ban')),
    until      timestamptz,
    by_user    text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (show_id, user_id, kind)
);

-- Audit log of everything hosts and moderators do. Append-only.
CREATE TABLE host_acts (
    act_id  uuid PRIMARY KEY,
    show_id text NOT NULL,
    actor   text NOT NULL,
    role    text NOT NULL,
    action  text NOT NULL,
    detail  jsonb NOT NULL,
    at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX host_acts_by_show ON host_acts (show_id, at DESC);

-- Restocks and lowerings asked for by hosts, by the id of their act: a repeated request is
-- answered from here. A lowering stays pending until Redis has decided it.
CREATE TABLE stock_requests (
    act_id  uuid PRIMARY KEY,
    show_id text NOT NULL REFERENCES shows,
    sale_id bigint NOT NULL REFERENCES sales,
    kind    text NOT NULL CHECK (kind IN ('restock', 'lower')),
    units   integer NOT NULL CHECK (units > 0),
    status  text NOT NULL CHECK (status IN ('pending', 'done', 'refused')),
    at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX stock_requests_pending ON stock_requests (sale_id) WHERE status = 'pending';
