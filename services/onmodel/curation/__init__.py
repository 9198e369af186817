"""A page in the browser that a person keeps, rejects, moves and corrects pictures on."""
