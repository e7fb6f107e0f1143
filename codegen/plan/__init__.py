"""Plan: which buffer lives when, and at which byte of the arena.

program.py   the calls for one sample and their buffers, as data
lowering.py  graph + step sizes -> programs, by asking each operator
placement.py buffers with lifetimes -> offsets
plan.py      the whole plan: programs of all steps, learned tensors, arena
"""
