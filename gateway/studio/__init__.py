"""What connects dubstage with studios' programs: timelines, deliveries, production trackers and farm managers."""
