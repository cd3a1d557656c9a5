"""Array operations that know tensors only: no algorithm, no configuration, no contract."""
