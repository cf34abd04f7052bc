"""Operations: the torch reference of each, and faster alternatives that are tested against it."""
