-- What is looked up: lists by id, and holds that were lost for good.
--
-- Indexes are built before anything is dropped or altered: until then tables can be read.

-- A show's orders are listed by their ids, all of them or those of one status.
CREATE INDEX orders_by_status ON orders (show_id, status, order_id);

-- Payments are listed by their ids, which rise with time.
CREATE INDEX payments_listed ON payments (show_id, payment_id);

CREATE INDEX payment_events_by_payment ON payment_events (payment_id);

-- Holds that Redis had lost, whose buyers proved them by a receipt after the stock had been rebuilt
-- and the units were gone: they were told released_by_incident. One row per claim, for people to
-- read: a claim's fate is what Redis and the orders say.
CREATE TABLE late_releases (
    show_id       text NOT NULL,
    buyer         text NOT NULL,
    claim_id      uuid NOT NULL,
    pool_id       bigint NOT NULL,
    quantity      integer NOT NULL,
    price         bigint NOT NULL,
    price_version integer NOT NULL,
    epoch         integer NOT NULL,  -- of the hold that was lost
    seq           bigint NOT NULL,
    refusal       text NOT NULL,     -- why the units could not be taken again
    at            timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (show_id, buyer, claim_id)
);

DROP INDEX orders_by_show;
DROP INDEX payments_by_show;
