"""Stand-ins for the background estimators that people have, with their arguments, on this package's kernels.

`skysub.compat.photutils.Background2D` and `skysub.compat.sep.Background` give the numbers of the originals
to within what ``docs/subtract.md`` says, several times as fast, and need neither package. Arguments that they
do not offer are refused in plain words.
"""
