# SPDX-License-Identifier: MIT
"""guestkit: what quickstart and the guest tests share: packages, kernels, root file systems, QMP."""
