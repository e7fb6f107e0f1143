"""`pmeta-train compare`: the paper's Table 2 for any data, and its picture.

entries -- what is compared; costs -- memory and computation of an adaptation; measurement, store -- what is measured,
and what of it is known; worker -- one process per job; running -- the workers side by side; table, text, picture -- the
results; labels -- names in them.
"""
