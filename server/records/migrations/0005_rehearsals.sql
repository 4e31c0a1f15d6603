-- Rehearsals of sales, in shadow shows of their own.

-- A shadow show is an ordinary row of `shows`, told by the form of its id and by this table.
CREATE TABLE rehearsals (
    rehearsal_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    show_id      text NOT NULL REFERENCES shows,
    sale_id      bigint NOT NULL REFERENCES sales,
    shadow_id    text NOT NULL UNIQUE REFERENCES shows CHECK (shadow_id ~ '^r[a-z0-9]{24}$'),
    request_id   uuid NOT NULL,
    asked        jsonb NOT NULL,  -- the host's request
    status       text NOT NULL DEFAULT 'preparing'
                 CHECK (status IN ('preparing', 'running', 'done', 'failed', 'stopped')),
    stop_asked   boolean NOT NULL DEFAULT false,
    progress     jsonb NOT NULL DEFAULT '{}',
    summary      jsonb,           -- of the load test
    report       bytea,           -- its page, compressed by gzip
    reason       text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT now(),
    seen_at      timestamptz NOT NULL DEFAULT now(),  -- when the process that runs it last said so
    ended_at     timestamptz,
    UNIQUE (show_id, request_id)
);
CREATE INDEX rehearsals_by_show ON rehearsals (show_id, rehearsal_id);
CREATE UNIQUE INDEX rehearsals_one_at_a_time ON rehearsals ((true))
    WHERE status IN ('preparing', 'running');
