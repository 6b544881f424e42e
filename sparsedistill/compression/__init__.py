"""From a trained DAN to the model that is deployed: fold, prune, quantise, calibrate.

Folding the first layer into the table is exact. What follows trades size for closeness; each step
is compared with the model before it, and `search` finds the best trade under a limit.
"""
