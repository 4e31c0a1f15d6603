-- Refusals of repeats in the claims hash: ['refused', attempt, code], packed, in the field where
-- the state of an accepted claim stands. Attempts up to that one are refused for good, whenever
-- they come: `attempt` is a fencing token. It is no state: nobody but the claim script and
-- rebuild_begin.lua looks into it. The list `refusals` has the same fields in the order of their
-- first refusal, for the oldest to be forgotten.

local REFUSAL = '\147' -- how it starts; a state has more elements

local function is_refusal(packed) return string.sub(packed, 1, 1) == REFUSAL end
