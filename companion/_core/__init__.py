"""What every package uses (internal).

Checks of arguments and labels (`checks`), compiled functions that are kept (`compile`), Ctrl-C
(`interrupt`), the ball of a threat (`geometry`), the words of signatures (`types`, and `words` without JAX),
`amounts` of bytes and seconds in words, versions, the extras that an import needs, and a fault of jaxlib that
is kept away (`weights_by_address`).
"""
