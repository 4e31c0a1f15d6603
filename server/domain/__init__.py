"""Pure rules of the product: no I/O, no clocks, no frameworks."""
