"""Tools for working with datasets: infer a card, draw a contact sheet, verify. No run depends on them."""
