"""Networks of stages, each a convolution and a row of equal blocks: everything that does not depend on the kind of block.

A family of such networks adds its block: parameters (a StagedSpec), module (a Block), graph (a StagedEmitter).
"""
