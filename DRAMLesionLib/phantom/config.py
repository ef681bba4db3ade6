"""What can be chosen about a phantom; everything else is drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PhantomConfig:
    """Ranges from which a patient and a scan are drawn.

    A pair is a range (lower, upper) for a uniform draw; a probability lies in [0, 1].

    Attributes:
        noise_hu: Standard deviation of the noise in HU that the scanner's own 0.7 mm pixels have in
            the middle of the chest; coarser voxels average part of it away.
        kernel_sharpness: 0 soft (B30) to 1 sharp (B70).
        slice_thickness_mm: Thickness of the scanner's slices.
        body_scale: Size of the patient against the average adult.
        fat_mm: Thickness of the fat under the skin.
        contrast_hu: What contrast medium adds to blood at 40 HU, where it was given.
        contrast_probability: Share of the patients who got contrast medium.
        lung_hu: Density of the middle of the lung between vessels one can see.
        gradient_hu: Rise of the density from the front to the back of the lung.
        vessel_spacing_mm: Distance between neighbouring ends of the vessel trees.
        fissure_mm: Thickness of the fissures.
        emphysema_probability: Share of the patients with emphysema.
        nodule_probability: Share of the patients with a few small nodules.
        atelectasis_probability: Share of the patients with visible dependent density.
        expiration_probability: Share of the scans taken in expiration: the lung denser, and by
            gravity more so at the back.
        motion_probability: Share of the scans blurred by heartbeat and breathing.
        circle_probability: Share of the scans with nothing outside the scanner's round field.
        consolidation: Range of the share of foci that are more than ground glass.
    """

    noise_hu: tuple[float, float] = (12.0, 60.0)
    kernel_sharpness: tuple[float, float] = (0.0, 1.0)
    slice_thickness_mm: tuple[float, float] = (0.75, 3.0)
    body_scale: tuple[float, float] = (0.9, 1.1)
    fat_mm: tuple[float, float] = (6.0, 32.0)
    contrast_hu: tuple[float, float] = (40.0, 310.0)
    contrast_probability: float = 0.5
    lung_hu: tuple[float, float] = (-895.0, -845.0)
    gradient_hu: tuple[float, float] = (15.0, 60.0)
    vessel_spacing_mm: float = 9.5
    fissure_mm: tuple[float, float] = (0.08, 0.3)
    emphysema_probability: float = 0.15
    nodule_probability: float = 0.3
    atelectasis_probability: float = 0.4
    expiration_probability: float = 0.0
    motion_probability: float = 0.4
    circle_probability: float = 0.5
    consolidation: tuple[float, float] = (0.05, 0.55)
