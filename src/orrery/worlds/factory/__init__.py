"""FactoryCell: a manufacturing cell with exact truth, simulated by MuJoCo."""
