"""FasterSeg supernet, search, derivation, training and baselines: not part of this version yet.

Imported as ``latlut.search``. What is here so far is the place itself; a latency table made
with this version is what the search will read.
"""
