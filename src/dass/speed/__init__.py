"""What sparsity buys on this machine: pruning time, 2:4 on a GPU, sparse engines on a CPU."""
