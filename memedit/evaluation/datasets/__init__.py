"""Loaders of the benchmarks, one file each; `registry` names them and reads one."""
