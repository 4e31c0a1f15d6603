-- What happens to an order after its confirmation: payment, expiry, cancellation, refund; who is
-- told of it outside; and how a stock that Redis lost is rebuilt.

-- --- Moves of orders ---------------------------------------------------------------------------

-- Append-only: every step of every order after `confirmed`. Redis (the claim's state, the pool's
-- counters, the buyer's connections) is told afterwards; `told_at` marks that it was.
CREATE TABLE order_moves (
    move_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id    bigint NOT NULL REFERENCES orders,
    show_id     text NOT NULL,
    pool_id     bigint NOT NULL,
    status_from text NOT NULL,
    status_to   text NOT NULL,
    -- deadline: not paid in time; buyer, host: they asked for it; payment: captured; retake: paid
    -- late, units taken again; redrive: confirmed out of a dead letter
    reason      text NOT NULL CHECK (reason IN ('deadline', 'buyer', 'host', 'payment', 'retake',
                                                'redrive')),
    actor       text NOT NULL DEFAULT '',
    give_id     text UNIQUE,  -- the units that came back by this move
    at          timestamptz NOT NULL DEFAULT now(),
    told_at     timestamptz
);
CREATE INDEX order_moves_by_order ON order_moves (order_id, move_id);
CREATE INDEX order_moves_to_tell ON order_moves (show_id, move_id) WHERE told_at IS NULL;

-- Churn: the first few times a buyer's units come back from expiry or cancellation, the buyer may
-- claim them again (`forgiven`); after that they are available to others but stay counted against
-- the buyer as `forfeited`. `units` are all that count against the limit.
ALTER TABLE pool_buyers
    ADD COLUMN returns   integer NOT NULL DEFAULT 0 CHECK (returns >= 0),
    ADD COLUMN forfeited integer NOT NULL DEFAULT 0 CHECK (forfeited BETWEEN 0 AND units);
ALTER TABLE gives ADD COLUMN forgiven boolean NOT NULL DEFAULT true;
-- Room on every page for newer versions of its rows: a buyer's next claim then leaves the index
-- alone (heap-only tuples), which saves a fifth of an order's cost.
ALTER TABLE pool_buyers SET (fillfactor = 50);

-- --- Payments ----------------------------------------------------------------------------------

ALTER TABLE payments
    ALTER COLUMN external_id DROP NOT NULL,
    ADD COLUMN show_id         text NOT NULL,
    ADD COLUMN buyer           text NOT NULL,
    ADD COLUMN pay_url         text NOT NULL DEFAULT '',
    ADD COLUMN reason          text NOT NULL DEFAULT '',  -- why a refund was requested
    ADD COLUMN attempts        integer NOT NULL DEFAULT 0,  -- of the re-take, or of the refund
    ADD COLUMN next_attempt_at timestamptz,
    ADD COLUMN last_error      text NOT NULL DEFAULT '',
    ADD COLUMN updated_at      timestamptz NOT NULL DEFAULT now();
CREATE INDEX payments_by_order ON payments (order_id);
CREATE INDEX payments_unfinished ON payments (next_attempt_at)
    WHERE status IN ('retake_pending', 'refund_requested');
CREATE INDEX payments_by_show ON payments (show_id, created_at);
-- An order is paid once, whatever the provider says.
CREATE UNIQUE INDEX payments_one_per_order ON payments (order_id)
    WHERE status IN ('captured', 'retake_pending');
-- Several tabs of a buyer get one payment.
CREATE UNIQUE INDEX payments_one_open ON payments (order_id, provider) WHERE status = 'created';

-- Every event a provider sent, once. It is committed before anything follows from it.
CREATE TABLE payment_events (
    provider    text NOT NULL,
    event_id    text NOT NULL,
    kind        text NOT NULL,
    external_id text NOT NULL,
    payment_id  uuid,  -- ours, where the provider names it
    amount      bigint NOT NULL,
    currency    text NOT NULL,
    occurred_at timestamptz NOT NULL,
    payload     bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    handled_at  timestamptz,
    outcome     text NOT NULL DEFAULT '',
    PRIMARY KEY (provider, event_id)
);
CREATE INDEX payment_events_unhandled ON payment_events (received_at) WHERE handled_at IS NULL;

-- Takes for orders that were paid after their time: the same gapless sequence as claims.
-- `units` is 0 where the books could not keep the take (the payment is refunded then).
CREATE TABLE retakes (
    pool_id    bigint NOT NULL REFERENCES pools,
    epoch      integer NOT NULL,
    seq        bigint NOT NULL,
    payment_id uuid NOT NULL,
    order_id   bigint NOT NULL,
    quantity   integer NOT NULL CHECK (quantity > 0),
    units      integer NOT NULL CHECK (units IN (0, quantity)),
    reason     text NOT NULL DEFAULT '',
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pool_id, epoch, seq)
);
CREATE INDEX retakes_by_order ON retakes (order_id);

-- --- Telling the merchant ----------------------------------------------------------------------

-- Which shows' events go to which URL. Topics: server/webhooks/topics.py.
CREATE TABLE webhook_endpoints (
    endpoint_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    show_id     text NOT NULL REFERENCES shows,
    url         text NOT NULL,
    secret      text NOT NULL,
    topics      text[] NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    removed_at  timestamptz,
    removed_by  text NOT NULL DEFAULT ''  -- a user, or `gone`: the target answered 410
);
CREATE INDEX webhook_endpoints_by_show ON webhook_endpoints (show_id) WHERE removed_at IS NULL;

-- The outbox has one row per batch of what happened, only while its show has an endpoint. A worker
-- turns it into messages, one per order, and deletes it in the same transaction.
ALTER TABLE outbox DROP COLUMN delivered_at;

CREATE TABLE webhook_messages (
    message_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    show_id    text NOT NULL,
    topic      text NOT NULL,
    data       jsonb NOT NULL,
    at         timestamptz NOT NULL  -- when it happened
);

CREATE TABLE webhook_deliveries (
    delivery_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id  bigint NOT NULL REFERENCES webhook_messages ON DELETE CASCADE,
    endpoint_id bigint NOT NULL REFERENCES webhook_endpoints,
    status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    -- `attempts` rises when a worker takes the delivery in hand: one that was frozen meanwhile
    -- cannot write its outcome any more. `schedule`: attempts since the message or its resending.
    attempts    integer NOT NULL DEFAULT 0,
    schedule    integer NOT NULL DEFAULT 0,
    in_hand     boolean NOT NULL DEFAULT false,
    next_at     timestamptz NOT NULL DEFAULT now(),  -- while in hand: when it may be taken over
    http_status integer,
    last_error  text NOT NULL DEFAULT '',
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (message_id, endpoint_id)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, next_at)
    WHERE status = 'pending';
CREATE INDEX webhook_deliveries_failed ON webhook_deliveries (endpoint_id) WHERE status = 'failed';
CREATE INDEX webhook_deliveries_log ON webhook_deliveries (endpoint_id, delivery_id DESC);

-- The stock that was told last, per pool: at most one message a second, with the newest counters.
CREATE TABLE stock_notices (
    pool_id  bigint PRIMARY KEY REFERENCES pools,
    version  bigint NOT NULL,   -- of the pool's row
    revision bigint NOT NULL,   -- of the sale's row
    at       timestamptz NOT NULL DEFAULT now()
);

-- --- Reconciliation ----------------------------------------------------------------------------

-- A released claim that is sent again gets the same answer, so its terms are kept.
ALTER TABLE incidents
    ADD COLUMN price         bigint NOT NULL DEFAULT 0,
    ADD COLUMN price_version integer NOT NULL DEFAULT 0;

CREATE INDEX stock_epochs_halted ON stock_epochs (show_id) WHERE halted_at IS NOT NULL;

-- One row per rebuild of a show's stock: why, and what came of it.
CREATE TABLE reconciliations (
    reconciliation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    show_id  text NOT NULL REFERENCES shows,
    epoch    integer NOT NULL,  -- the one it opened
    reason   text NOT NULL,
    by_whom  text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    report   jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX reconciliations_by_show ON reconciliations (show_id, reconciliation_id DESC);
