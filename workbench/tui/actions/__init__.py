"""What keys do, by group; `table.py` maps the ids of the key table to them."""
