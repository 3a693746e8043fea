//! Memory that a NIC may DMA into.
