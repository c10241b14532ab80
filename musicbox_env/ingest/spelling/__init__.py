"""How files, values and times are written, whoever wrote them."""
