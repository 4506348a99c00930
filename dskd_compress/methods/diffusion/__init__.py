"""Diffusion of features: noise schedule, DDIM sampler and denoiser, shared by DSKD and DiffKD."""
