"""Tools beside the path of the data: infer a card, draw a contact sheet, verify."""
