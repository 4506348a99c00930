"""DSKD: teacher-guided student diffusion self-knowledge distillation (arXiv 2602.02107), reconstructed.

Only the paper's abstract and the opening of its text were available, and no public code exists. This is
a reconstruction: every choice that the text does not settle is an option of `DskdMethod` in
`dskd_compress.config`. `method.py` is the whole method on one page.
"""
