"""Where the time and the memory of a session went: tables, blocks, and what each operator had to do."""
