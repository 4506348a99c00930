"""DSKD: teacher-guided student diffusion self-knowledge distillation (arXiv 2602.02107), reconstructed.

Only the paper's abstract and the opening of its text were available to us, and no public code
exists: what follows is a reconstruction, and every choice that the text does not settle is an
option of `DskdMethod` in `dskd_compress.config`. `task.py` is the method on one page.
"""
