# SPDX-License-Identifier: MIT
"""benchkit: what tools/evisor-bench measures, and how it compares and shows it."""
