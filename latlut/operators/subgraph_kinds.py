"""The kinds of op specs that are pieces of ONNX graphs, by what most of their work is."""

KINDS = ("subgraph_conv", "subgraph_pointwise", "subgraph_depthwise", "subgraph_transposed",
         "subgraph_matmul", "subgraph_pool", "subgraph_resize", "subgraph_other")  # fmt: skip

#: A piece without weights takes a few kilobytes, tables of indices included.
MAX_BYTES = 4 << 20
