"""From lobe chunks over dRAMs to segmented, typed and scored lesions."""
