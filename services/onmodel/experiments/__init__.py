"""Experiments on the product's claims, and what they measure with. No part of the product imports them."""
