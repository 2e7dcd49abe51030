"""TAK's Kronecker estimate of ‖Jτ‖² beside the exact number, by pair of tasks and layer."""
