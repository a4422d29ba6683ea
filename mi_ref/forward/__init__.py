"""One forward pass: embed, run the layers, unembed, with a tap at every site."""
