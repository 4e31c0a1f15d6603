-- What a show's numbers were over time, and what its host means to say of each product.

-- Every 5 s of a show that is on; where Redis did not answer there is no row. All of them are
-- totals. Units as the books had them: left, held (reserved or dead) and sold; orders that stand.
CREATE TABLE show_samples (
    show_id    text NOT NULL REFERENCES shows,
    at         timestamptz NOT NULL,
    online     integer NOT NULL,
    likes      bigint NOT NULL,
    lines      bigint NOT NULL,
    claims     bigint NOT NULL,
    left_units integer NOT NULL,
    held       integer NOT NULL,
    sold       integer NOT NULL,
    orders     bigint NOT NULL,
    amounts    jsonb NOT NULL,  -- currency -> minor units
    PRIMARY KEY (show_id, at)
);

ALTER TABLE products ADD COLUMN cues text[] NOT NULL DEFAULT '{}';

-- A sale's orders are listed by their ids, all of them or those of one status. The sale
-- is not in front: the planner would take orders_one_per_seq, and read the sale's orders for a page.
CREATE INDEX orders_by_sale ON orders (status, pool_id, order_id);
