"""Work on many recordings in several processes: of this machine, or of a Dask cluster.

In: a function of one item, and items. Out: the results in the order of the items, as if this
process had done it all. Open spread.py first. Nothing here knows what the work is.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("choose", "cluster", "spread")
