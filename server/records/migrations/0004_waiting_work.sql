-- What could not be done at once, and waits for another try.

-- A refund that its provider refuses waits for an operator (`next_attempt_at` is null then), who may
-- settle it without the provider. If that gives the money back too, an operator has to see to it.
ALTER TABLE payments
    ADD COLUMN settled_by_hand boolean NOT NULL DEFAULT false,
    ADD COLUMN refunded_twice  boolean NOT NULL DEFAULT false;
CREATE INDEX payments_refunded_twice ON payments (payment_id) WHERE refunded_twice;

-- Since when Redis has to be told of a decision that neither a give nor an order's step tells.
ALTER TABLE dead_letters ADD COLUMN untold_since timestamptz;
CREATE INDEX dead_letters_untold ON dead_letters (show_id) WHERE untold_since IS NOT NULL;

-- An event is first handled by whoever received it; until `next_attempt_at` nobody else tries.
ALTER TABLE payment_events
    ADD COLUMN attempts        integer NOT NULL DEFAULT 0,
    ADD COLUMN next_attempt_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN last_error      text NOT NULL DEFAULT '';
CREATE INDEX payment_events_due ON payment_events (next_attempt_at) WHERE handled_at IS NULL;
DROP INDEX payment_events_unhandled;
