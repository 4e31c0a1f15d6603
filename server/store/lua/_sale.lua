-- A flash sale's terms as viewers see them. Include _values, _room and _pool first.

local SALE_FIELDS = {'p', 'pv', 'lim', 'o', 'c', 'st', 'pay', 'sku', 'prod', 'lp', 'cur'}

-- Value of the state key sale:<id>; `pool` was read with SALE_FIELDS.
local function sale_value(pool, epoch)
  return {
    epoch = epoch,
    version = pool.v,
    sale = pool.id,
    sku = whole(pool.sku, 'sku'),
    product = whole(pool.prod, 'product'),
    phase = pool.st,
    price = whole(pool.p, 'price'),
    list_price = whole(pool.lp, 'list price'),
    currency = pool.cur,
    price_version = whole(pool.pv, 'price version'),
    limit_per_buyer = whole(pool.lim, 'limit'),
    opens_at = whole(pool.o, 'opens at'),
    closes_at = whole(pool.c, 'closes at'),
    pay_within_s = whole(pool.pay, 'pay within'),
  }
end
